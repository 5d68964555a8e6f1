"""HOG descriptor and HOG-SVM."""
