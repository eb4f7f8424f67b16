"""Celery's wire formats. Known nowhere else: the rest of celeriac sees `Message`, `TaskBody` and `Record`."""
