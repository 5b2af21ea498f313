"""Artifacts in S3-compatible object storage: the only place that imports boto3 and botocore."""
