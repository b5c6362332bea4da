"""Helpers shared by the labs of Training and Deploying Multi-Stage Recommender Systems."""
