"""Fetch Debian packages for private use, without root and without touching the system's own.

Standard library only: the bootstrap uses it before there is a virtual environment.
"""
