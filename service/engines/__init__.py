"""What computes: one engine a model, arrays in and arrays out."""
