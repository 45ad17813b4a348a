"""What a student is worth: the protocol, measures through files, the audit and the calibration."""
