"""Serve the API: gunicorn's master, our worker class over meinheld, and the admin process."""
