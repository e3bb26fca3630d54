"""What every process of the project needs before it does anything. Imports nothing of ours."""
