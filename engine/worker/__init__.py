"""One chunk made where there are links and no keys: in a container on Modal."""
