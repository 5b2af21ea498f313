"""What can run on a Ray worker: plain torch that knows no Ray, HTTP, database or job."""

__version__ = "0.1.0"
