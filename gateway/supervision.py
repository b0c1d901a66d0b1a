"""The supervisor of a real gateway, from its settings: classifier, log of decisions, lessons, and a silent second one.

What cannot be loaded is said in the log and left out: without a classifier `auto` means the default specialist.
"""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.settings import Settings
from specialists.catalogue import Catalogue
from specialists.errors import CatalogueError
from supervisor.classifier import SupervisorClassifier
from supervisor.decisions import DecisionLog
from supervisor.errors import SupervisorError
from supervisor.feedback import FeedbackDesk
from supervisor.lessons import frozen_benchmark
from supervisor.shadow import Shadow
from supervisor.supervisor import Supervisor
from supervisor.transfer_fit import TransferTable, TransferTableError
from supervisor.transfer_model import TransferModel

logger = logging.getLogger("gateway")


def build_supervisor(settings: Settings, *, default: str, transfer: TransferModel) -> Supervisor:
    """`default` is the tag of the specialist that answers what nobody else should."""
    classifier = load_classifier(settings.embedder or "", settings.supervisor_model)
    made = Supervisor(
        default=default,
        classifier=classifier,
        transfer=transfer,
        log=DecisionLog(unix_time=time.time, allow_text=settings.keep_questions),
        shadow=None if settings.shadow_model is None else _shadow(settings.shadow_model),
    )
    if classifier is not None:
        made.feedback = FeedbackDesk(
            classifier, benchmark=frozen_benchmark(), publish=lambda taught: setattr(made, "classifier", taught)
        )
    return made


def transfer_model(college: Catalogue) -> TransferModel:
    """What specialists are worth away from home: by the college's own table, if it names one, else as published.

    Raises CatalogueError when that table cannot be used.
    """
    path = college.transfer_path
    try:
        return TransferModel(TransferTable.load(), None if path is None else TransferTable.load(path))
    except TransferTableError as error:
        raise CatalogueError(f"[college]: transfer: {error}") from None


def load_classifier(embedder: str, directory: Path | None = None) -> SupervisorClassifier | None:
    """The shipped classifier or the one in `directory`; None, with the reason in the log, if it cannot be loaded."""
    try:
        return SupervisorClassifier.load(directory, embedder=embedder)
    except (SupervisorError, OSError, ImportError, ValueError) as error:
        logger.error("the supervisor's classifier cannot be loaded, auto goes to the default specialist: %s", error)
        return None


def _shadow(directory: Path) -> Shadow | None:
    """Compares in a thread of its own, so that no answer waits for it."""
    try:
        classifier = SupervisorClassifier.load(directory)
    except (SupervisorError, OSError, ImportError, ValueError) as error:
        logger.error("the shadow model (COE_SHADOW_MODEL) cannot be loaded, nothing is compared: %s", error)
        return None
    return Shadow(classifier, clock=time.perf_counter, submit=ThreadPoolExecutor(1, "shadow").submit)
