"""What lies on disk while a job runs: chunks, locks, the key of the job."""
