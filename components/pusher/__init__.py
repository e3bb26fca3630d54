"""Pusher: whole versions only, and none twice."""
