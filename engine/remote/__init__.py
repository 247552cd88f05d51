"""One job with its chunks made on Modal."""
