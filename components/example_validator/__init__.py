"""ExampleValidator: anomalies stop the run."""
