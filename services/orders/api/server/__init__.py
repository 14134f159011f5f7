"""How the API is served: gunicorn, our worker class over meinheld, the admin process beside it."""
