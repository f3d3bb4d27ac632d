"""Networks that compute the parameters of couplings, autoregressive maps and priors."""
