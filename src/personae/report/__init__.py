"""The report of a study: one HTML file that opens anywhere; its numbers as JSON, CSV and PNG."""
