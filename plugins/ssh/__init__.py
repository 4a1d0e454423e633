"""Deploy by SSH. `deploy.py` runs alone in the container that `Dockerfile` makes."""
