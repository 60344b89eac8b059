"""How much may be asked: buckets of requests, tokens and places, decided in one atomic step."""
