"""The CPU engine on OpenVINO: graphs and paged memory for the batcher."""
