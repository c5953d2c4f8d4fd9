"""The errors a person can meet, and the exit code each gives the command line.

    PersonaeError (1)
    ├── UsageError (2)         the command, a key or a value is wrong
    │   └── UnsupportedError   the pair of technique and base cannot work
    ├── CharacterError         a folder of pictures cannot be used
    ├── BaseError              a base model cannot be loaded
    ├── ArtifactError          a trained file is damaged, foreign or for another base
    │   └── MissingFileError   it is not there; a UsageError too (2)
    ├── TrainingError          a run cannot go on
    │   └── DoesNotFitError    the forecast exceeds the machine
    ├── EncoderError           a measuring network is not there or cannot be loaded
    └── StudyError             a comparison cannot be set up

Each message is one line: what was wrong, the value found, what was expected, what to do.
"""


class PersonaeError(Exception):
    """Anything personae refuses; its text is written for the person at the keyboard."""

    exit_code = 1


class UsageError(PersonaeError):
    """The command, a configuration key or a value is wrong."""

    exit_code = 2


class OccupiedError(UsageError):
    """A folder is another run's, or another process works in it now."""


class UnsupportedError(UsageError):
    """A technique and a base (or two requests) cannot work together."""


class CharacterError(PersonaeError):
    """A folder of pictures cannot be used as it is."""


class BaseError(PersonaeError):
    """A base model cannot be found or loaded."""


class ArtifactError(PersonaeError):
    """A trained file is damaged, of a foreign kind, or made for another base."""


class MissingFileError(UsageError, ArtifactError):
    """A trained file is not where the command or the code says."""


class TrainingError(PersonaeError):
    """A training run cannot start or cannot go on."""


class DoesNotFitError(TrainingError):
    """The forecast of a run exceeds the memory of the machine."""


class EncoderError(PersonaeError):
    """The weights or the library of a measuring network are not there."""


class StudyError(PersonaeError):
    """A comparison cannot be set up."""
