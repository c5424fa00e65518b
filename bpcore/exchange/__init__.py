"""Networks that go elsewhere and come from elsewhere: ONNX, PyTorch, scikit-learn, one file of NumPy, model cards."""
