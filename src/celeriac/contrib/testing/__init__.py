"""What tests of programs use, under Celery's names of `celery.contrib.testing`."""
