"""`inflight models`: what is published in a home folder, and what a server of it has loaded."""
