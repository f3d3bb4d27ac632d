"""One table of requests and answers, asked over every transport: what clients may rely on."""
