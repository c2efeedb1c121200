"""The loan application: the one definition of its inputs.

Whatever names an input, bounds it, stores it or shows it is derived from ``FIELDS``: the readers
and their JSON schemas, the rules as data, the event, the table and its erasure, the export, the
training data and the form.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, get_args

import pydantic
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

MAX_INCOME: Final = 100_000
MAX_AMOUNT: Final = 100_000
MAX_TERM_MONTHS: Final = 600
MAX_LOAN_ID_LENGTH: Final = 64

Use = Literal["scored", "monitored", "recorded", "identifier"]
"""What an input is for: a score, fairness monitoring, the record alone, or finding it again."""

Direction = Literal["up", "down"]
"""Whether a higher value may only raise the probability of approval, or only lower it."""

Kind = Literal["number", "integer", "category", "text"]
Section = Literal["Income", "Loan", "Applicant"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """What an annotation of ``Application`` says about an input, besides its name and type."""

    column: str
    title: str
    """For people, as every text here but ``description``, which is for developers."""
    description: str
    use: Use
    help: str = ""
    section: Section = "Applicant"
    """Where forms show a scored input; the others have a section by their use."""
    direction: Direction | None = None
    """Of a scored input: what models are held to; None where no direction is expected."""
    unit: str | None = None
    exclusive_minimum: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    """Of a text, the most characters."""
    allowed: tuple[int, ...] | tuple[str, ...] = ()
    """The values of a category. A last one that ends in + stands for every greater number."""
    labels: tuple[str, ...] = ()
    """What people read for each allowed value; without labels, the values themselves."""
    personal: bool = True
    """Whether erasure removes it."""
    example: int | str | None = None

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of the type, with what the input is."""
        unit = "" if self.unit is None else f" Unit: {self.unit}."
        return handler(core) | {"description": self.description + unit}


@dataclass(frozen=True, kw_only=True)
class Field(Input):
    """An input with its name on the wire, the type of its values, and whether one must be given."""

    name: str
    value_type: type[float] | type[int] | type[str]
    required: bool

    @property
    def kind(self) -> Kind:
        """What its values are."""
        if self.allowed:
            return "category"
        return _KINDS[self.value_type]

    @property
    def labels_by_value(self) -> dict[str, str]:
        """The label of each value of a category."""
        values = [str(value) for value in self.allowed]
        return dict(zip(values, self.labels or values, strict=True))

    @property
    def sign(self) -> int:
        """1 if a higher value is better for approval, -1 if it is worse, 0 without direction."""
        return _SIGNS[self.direction]


_SIGNS: Final = {"up": 1, "down": -1, None: 0}
_KINDS: Final[dict[type, Kind]] = {float: "number", int: "integer", str: "text"}


class Wire(BaseModel):
    """Frozen, and tolerant of members that a newer writer added."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=()
    )


Whole = Annotated[int, pydantic.Field(ge=-(2**15), le=2**15 - 1)]
"""A whole number of an application: small enough for its column."""

_YES_NO: Final = ("Yes", "No")


class Application(Wire):
    """A loan application as the service read it; null is missing."""

    # Categories are open: an older reader stores a value that only a newer service decides on.

    Loan_ID: Annotated[
        str | None,
        Input(
            column="loan_id",
            title="Loan ID",
            description=f"The lender's own number: at most {MAX_LOAN_ID_LENGTH} visible characters,"
            " no spaces.",
            use="identifier",
            help="Your own number, to find it again.",
            maximum=MAX_LOAN_ID_LENGTH,
            example="LP001003",
        ),
    ] = None
    Gender: Annotated[
        str | None,
        Input(
            column="gender",
            title="Gender",
            description="Recorded for fairness monitoring, never scored.",
            use="monitored",
            allowed=("Male", "Female"),
            example="Male",
        ),
    ] = None
    Married: Annotated[
        str | None,
        Input(
            column="married",
            title="Married",
            description="Recorded for fairness monitoring, never scored.",
            use="monitored",
            allowed=_YES_NO,
            example="Yes",
        ),
    ] = None
    Dependents: Annotated[
        str | None,
        Input(
            column="dependents",
            title="Dependents",
            description="Number of people who depend on the applicant.",
            use="scored",
            allowed=("0", "1", "2", "3+"),
            example="1",
        ),
    ] = None
    Education: Annotated[
        str | None,
        Input(
            column="education",
            title="Education",
            description="Whether the applicant has a degree.",
            use="scored",
            allowed=("Graduate", "Not Graduate"),
            example="Graduate",
        ),
    ] = None
    Self_Employed: Annotated[
        str | None,
        Input(
            column="self_employed",
            title="Self-employed",
            description="Whether the applicant is self-employed.",
            use="scored",
            allowed=_YES_NO,
            example="No",
        ),
    ] = None
    ApplicantIncome: Annotated[
        float,
        Input(
            column="applicant_income",
            title="Applicant's income",
            description="Income of the applicant; 0 only where the co-applicant has one.",
            use="scored",
            direction="up",
            section="Income",
            unit="per month",
            minimum=0,
            maximum=MAX_INCOME,
            example=4583,
        ),
    ]
    CoapplicantIncome: Annotated[
        float | None,
        Input(
            column="coapplicant_income",
            title="Co-applicant's income",
            description="Income of the co-applicant; missing means that none was declared and"
            " counts as 0.",
            use="scored",
            direction="up",
            help="Empty means that none was declared.",
            section="Income",
            unit="per month",
            minimum=0,
            maximum=MAX_INCOME,
            example=1508,
        ),
    ] = None
    LoanAmount: Annotated[
        float | None,
        Input(
            column="loan_amount",
            title="Loan amount",
            description="Amount of the loan applied for.",
            use="scored",
            direction="down",
            section="Loan",
            unit="thousands",
            exclusive_minimum=0,
            maximum=MAX_AMOUNT,
            example=128,
        ),
    ] = None
    Loan_Amount_Term: Annotated[
        float | None,
        Input(
            column="loan_amount_term",
            title="Time to repay",
            description="Time to repay the loan.",
            use="scored",
            section="Loan",
            unit="months",
            exclusive_minimum=0,
            maximum=MAX_TERM_MONTHS,
            example=360,
        ),
    ] = None
    Credit_History: Annotated[
        Whole | None,
        Input(
            column="credit_history",
            title="Credit history",
            description="1 if past credit met its guidelines, 0 if not; missing is a third state,"
            " never good.",
            use="scored",
            direction="up",
            section="Loan",
            allowed=(0, 1),
            labels=("Did not meet its guidelines", "Met its guidelines"),
            example=1,
        ),
    ] = None
    Property_Area: Annotated[
        str | None,
        Input(
            column="property_area",
            title="Property area",
            description="The kind of area in which the property lies.",
            use="scored",
            section="Loan",
            allowed=("Urban", "Semiurban", "Rural"),
            example="Rural",
        ),
    ] = None


def _field(name: str, info: FieldInfo) -> Field:
    [given] = [item for item in info.metadata if isinstance(item, Input)]
    annotation: Any = (get_args(info.annotation) or (info.annotation,))[0]
    return Field(
        name=name,
        value_type=getattr(annotation, "__origin__", annotation),
        required=info.is_required(),
        **vars(given),
    )


FIELDS: Final = tuple(_field(name, info) for name, info in Application.model_fields.items())
"""Every input, in the order of the data set."""

FIELDS_BY_USE: Final = tuple(
    sorted(FIELDS, key=lambda field: (get_args(Use).index(field.use), field.value_type is str))
)
"""Every input: what decides comes first, numbers before words."""

SCORED: Final = tuple(field.name for field in FIELDS_BY_USE if field.use == "scored")
"""The inputs that may influence a score; every other one is only recorded."""

MONITORED: Final = tuple(field.name for field in FIELDS_BY_USE if field.use == "monitored")
"""Recorded for fairness monitoring, never scored."""

COUNTS_AS_ZERO: Final = frozenset({"CoapplicantIncome"})
"""Inputs whose absence is a statement: no co-applicant declared an income."""

EXAMPLE: Final = {field.name: field.example for field in FIELDS if field.example is not None}
"""The documented example."""
