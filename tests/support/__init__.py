"""What tests of several rooms need: clips, servers, places for remote jobs."""
