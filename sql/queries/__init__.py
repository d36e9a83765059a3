"""SQL files as package data."""
