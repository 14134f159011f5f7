"""The CustomResourceDefinition, made from the types: `python -m orderservice_operator.crd`."""
