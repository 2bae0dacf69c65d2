"""ONNX models in and out: messages by the onnx package, checks and running are here."""
