"""What is raised of a model folder that cannot be used."""


class CheckpointError(ValueError):
    """A checkpoint cannot be read, does not fit its configuration or does not reproduce itself."""
