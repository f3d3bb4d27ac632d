"""One code base a module, or a package where it has several kinds of flow."""
