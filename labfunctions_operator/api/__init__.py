"""The kinds users write, as types: fields, validation, conditions and CRD generation."""
