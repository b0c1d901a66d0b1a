"""Everything an operator can set, with one prefix: `COE_`.

Values only. Nothing here opens a file, binds a port or reads the memory of the machine; the parts that do are
given these values. Each field's description is its documentation, and a test refuses a field without one.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.keys import FILE_NAME
from specialists.engine.protocol import CacheType

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TemperaturePolicy(StrEnum):
    """What happens to a temperature that the client asks for."""

    ENFORCE = "enforce"  # the specialist's own temperature, always
    CLAMP = "clamp"  # the client's, moved into the range in which specialists behave
    ALLOW = "allow"  # the client's as it is


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Settings(BaseSettings):
    """The gateway's settings, from arguments first and `COE_…` environment variables second."""

    model_config = SettingsConfigDict(env_prefix="COE_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 means every interface.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port to listen on; 0 lets the system choose one.")
    college: Path = Field(
        default=Path("college.toml"), description="The college.toml that names the specialists to serve."
    )
    memory_budget: str | None = Field(
        default=None,
        description="Memory that loaded models may take together, such as 15GiB; unset, the machine decides.",
    )
    ram_budget: str | None = Field(
        default=None,
        description="RAM for what no GPU holds and parked conversations, such as 24GiB; unset, the machine decides.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="Key that clients must send as a bearer token or x-api-key; unset, anyone may ask."
    )
    keys_file: Path | None = Field(
        default=None, description="File of the keys that `coe keys` makes; unset, keys.json in COE_HOME."
    )
    allowed_hosts: str | None = Field(
        default=None,
        description="Host names that clients may use beside local ones, comma-separated; * for any, as with a key.",
    )
    allowed_origins: str | None = Field(
        default=None,
        description="Web origins whose pages may ask beside local ones, such as https://chat.example; * for any.",
    )
    home: Path = Field(
        default=Path("~/.college-of-experts"),
        description="Folder for what is made while serving: personas, API keys, and the list of pulled models.",
    )
    manage_models: bool = Field(
        default=True, description="Whether clients may create, copy, delete and pull models over /api."
    )
    temperature_policy: TemperaturePolicy = Field(
        default=TemperaturePolicy.ENFORCE,
        description="enforce the specialist's temperature, clamp the client's into 0 to 0.7, or allow the client's.",
    )
    cache_type: CacheType = Field(
        default=CacheType.F16,
        description="Type of keys and values in caches: f16, q8_0 or q4_0, unless a specialist says.",
    )
    max_body_bytes: int = Field(default=8 * 1024**2, ge=1024, description="Largest request body accepted, in bytes.")
    max_queue: int = Field(
        default=512, ge=1, description="Requests that may wait for a specialist before 429 is answered."
    )
    max_parallel_choices: int = Field(
        default=8, ge=1, le=64, description="Largest n (answers to one prompt) that a client may ask for."
    )
    keepalive_seconds: Seconds = Field(
        default=15.0, description="A silent stream sends a comment this often, so that proxies keep it open."
    )
    hold_headers_seconds: Seconds = Field(
        default=10.0,
        description="A stream's 200 waits this long for the first token, so that failures before it are real errors.",
    )
    queue_comment_seconds: Seconds = Field(
        default=2.0, description="A stream that waits for a specialist says its place in the queue this often."
    )
    empty_delta_seconds: Seconds = Field(
        default=60.0,
        description="A stream without new text sends an empty delta this often, for clients deaf to comments.",
    )
    load_stall_seconds: Seconds = Field(
        default=120.0, description="A load that makes no progress for this long is given up."
    )
    engine_silence_seconds: Seconds = Field(
        default=30.0,
        description="A busy engine that shows no sign of life for this long counts as hung and is stopped.",
    )
    header_timeout_seconds: Seconds = Field(
        default=15.0, description="A connection whose request head is still incomplete after this long is closed."
    )
    body_timeout_seconds: Seconds = Field(
        default=15.0, description="A request whose body pauses for this long is answered 408 and closed."
    )
    keep_alive_seconds: int = Field(
        default=75, ge=5, description="An idle connection stays open this long; keep it above the clients' own expiry."
    )
    shutdown_grace_seconds: Seconds = Field(
        default=30.0, description="After SIGTERM, running answers get this long to finish."
    )
    stalled_reader_seconds: Seconds = Field(
        default=60.0, description="A client that accepts no bytes of its stream for this long is dropped."
    )
    resumable_max_seconds: Seconds = Field(
        default=600.0, description="Longest that an answer goes on without its reader, whatever X-Resumable asks for."
    )
    resumable_max_bytes: int = Field(
        default=4 * 1024**2, ge=64 * 1024, description="What is kept of one resumable stream, in bytes; the newest."
    )
    resumable_max_streams: int = Field(
        default=64, ge=1, description="Resumable streams and background responses that are kept at once."
    )
    resumable_kept_seconds: Seconds = Field(
        default=300.0, description="A resumable stream can be read for this long after its end."
    )
    embedder: str | None = Field(
        None, description="Encoder of the supervisor: unset for the shipped one, or sentence-transformers:<model>."
    )
    supervisor_model: Path | None = Field(
        default=None, description="Model directory of the supervisor's classifier; unset, the one that ships."
    )
    shadow_model: Path | None = Field(
        default=None, description="A second model directory that decides silently, to be compared; see /coe/shadow."
    )
    keep_questions: bool = Field(default=False, description="Whether /coe/decisions may hold the questions' own words.")
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads for each engine; unset, one for each core that may be used."
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="Least severe log line that is written.")
    log_json: bool = Field(default=False, description="Write each log line as one JSON object.")

    @property
    def key_path(self) -> Path:
        """Where the API keys are. Raises RuntimeError where COE_HOME names a home that does not exist."""
        return self.keys_file if self.keys_file is not None else self.home.expanduser() / FILE_NAME

    @field_validator("keys_file", "supervisor_model", "shadow_model", mode="before")
    @classmethod
    def _empty_path_is_no_path(cls, value: object) -> object:
        """`COE_SHADOW_MODEL=` in an env file means unset, not the current folder."""
        return None if value == "" else value

    @field_validator("api_key")
    @classmethod
    def _empty_key_is_no_key(cls, value: SecretStr | None) -> SecretStr | None:
        """`COE_API_KEY=` in an env file means unset; an empty key would let `Bearer ` in."""
        return value if value is not None and value.get_secret_value() else None
