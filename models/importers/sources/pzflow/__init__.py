"""Flows of jfcrenshaw/pzflow."""
