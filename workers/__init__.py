"""The Celery process: tasks wake up promotions, the runner advances them step by step."""
