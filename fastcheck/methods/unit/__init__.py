"""The unit method: one probe for each unit and sample."""
