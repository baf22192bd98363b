from genokit import genomics as genomics
from genokit import omop as omop
from genokit import train as train
from genokit.batch import Batch as Batch
from genokit.batch import Job as Job
from genokit.batch import JobDefinition as JobDefinition
from genokit.config import Settings as Settings
from genokit.data import Dataset as Dataset
from genokit.data import Manifest as Manifest
from genokit.errors import GenokitError as GenokitError
from genokit.omop.cdm import Cdm as Cdm
from genokit.omop.concepts import Concept as Concept
from genokit.omop.concepts import ConceptSet as ConceptSet
from genokit.pipelines import Pipeline as Pipeline
from genokit.pipelines import Run as Run
from genokit.pipelines import record as record
from genokit.pipelines import run as run
from genokit.stacks import Image as Image
from genokit.stacks import Stack as Stack
from genokit.workspaces import Workspace as Workspace

__version__: str

def load_ipython_extension(shell: object) -> None: ...
