"""torchcfm (conditional flow matching): velocity fields over vectors and over images."""
