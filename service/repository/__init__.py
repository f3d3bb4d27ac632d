"""Finds model folders, loads them, proves them and serves them."""

from service.repository.folders import ModelLocation, find_models, zoo_folder
from service.repository.repository import FolderRepository

__all__ = ["FolderRepository", "ModelLocation", "find_models", "zoo_folder"]
