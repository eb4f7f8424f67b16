"""For Django projects: tasks that are sent when a database transaction commits."""
