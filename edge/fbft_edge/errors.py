"""The exceptions a user can act on; the command line ends with status 2 on any of them.

FbftError
├── ArgumentError    a command was given something it cannot use
├── ConfigError      a configuration cannot be used
├── ImageError       an image file cannot be read or written
├── BundleError      a bundle is missing, altered or does not fit the frames
├── EngineError      no engine can run the bundle's model here
│   └── MapError     an engine's map holds values that are not numbers
├── CameraError      a camera cannot be opened or stopped delivering
├── RecordingError   recordings cannot be kept or read
├── MessageError     a received message is not a valid result
├── PublisherError   a socket of the line cannot be set up
├── CommandError     a line refused a command or did not answer
├── TeacherError     teacher weights cannot be had, or are not what they should be
└── PeerError        another method cannot be made, fitted or run

Every message says the cause with its numbers, then the remedy. Anything else that is raised is a bug
and keeps its traceback.
"""


class FbftError(Exception):
    """Root of all user errors."""


class ArgumentError(FbftError):
    """A command was given something it cannot use."""


class ConfigError(FbftError):
    """A configuration cannot be used; one line for each problem."""


class ImageError(FbftError):
    """An image file cannot be read or written."""


class BundleError(FbftError):
    """A bundle is missing, altered or does not fit the frames."""


class EngineError(FbftError):
    """No engine can run the bundle's model here."""


class MapError(EngineError):
    """An engine's map holds values that are not numbers, on which no verdict can stand."""


class CameraError(FbftError):
    """A camera cannot be opened or stopped delivering."""


class RecordingError(FbftError):
    """Recordings cannot be kept or read."""


class MessageError(FbftError):
    """A received message is not a valid result."""


class PublisherError(FbftError):
    """A socket of the line cannot be set up."""


class CommandError(FbftError):
    """A line refused a command or did not answer."""


class TeacherError(FbftError):
    """Teacher weights cannot be had, or are not what they should be."""


class PeerError(FbftError):
    """Another method cannot be made, fitted or run."""
