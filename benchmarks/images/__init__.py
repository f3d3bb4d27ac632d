"""The image models of the zoo side by side: likelihoods, serving, and digits against clothes."""
