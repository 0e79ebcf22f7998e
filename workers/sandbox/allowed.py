"""What the pickle of a model may import: a list of the good, as no list of the bad is ever complete."""

import re
from collections.abc import Sequence

_CLASS = r"_?[A-Z]\w*"
_SCALARS = r"u?int(8|16|32|64)|float(16|32|64)|intp|bool_?|str_|bytes_|object_|void|datetime64|timedelta64"
# What FunctionTransformer is usually given; a ufunc computes and does nothing else.
_UFUNCS = r"log|log1p|log2|log10|exp|expm1|sqrt|cbrt|square|abs|absolute|sin|cos|tan|tanh|sign|reciprocal"
_STORAGES = r"(Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
_TENSOR_TYPES = r"float(16|32|64)|bfloat16|int(8|16|32|64)|uint8|bool"
_LAYERS = (
    r"activation|adaptive|batchnorm|channelshuffle|container|conv|distance|dropout|embedding|flatten|fold|instancenorm"
    r"|linear|normalization|padding|pixelshuffle|pooling|rnn|transformer|upsampling"
)

_RULES: Sequence[tuple[str, str]] = (
    (r"builtins|__builtin__", r"object|type|int|float|complex|bool|str|bytes|bytearray|list|tuple|dict|set|frozenset"),
    (r"builtins|__builtin__", r"slice|range|Ellipsis|NoneType"),
    (r"types", r"NoneType|SimpleNamespace"),
    (r"collections", r"OrderedDict|defaultdict|deque|Counter"),
    (r"copyreg|copy_reg", r"_reconstructor"),
    (r"_codecs", r"encode"),
    (r"datetime", r"date|time|datetime|timedelta|timezone"),
    (r"decimal", r"Decimal"),
    (r"functools", r"partial"),
    (r"numpy", rf"ndarray|dtype|{_SCALARS}|{_UFUNCS}|mean|median|min|max|sum"),
    (r"numpy(\._core|\.core)?\._multiarray_umath", _UFUNCS),
    (r"numpy\._?core\.multiarray", r"_reconstruct|scalar"),
    (r"numpy\._?core\.numeric", r"_frombuffer"),
    (r"numpy\.dtypes", _CLASS),
    (r"numpy\.random(\.\w+)*", rf"{_CLASS}|__(randomstate|generator|bit_generator)_ctor|__pyx_unpickle_\w+"),
    (r"numpy\.ma(\.core)?", r"_mareconstruct|MaskedArray"),
    (r"pandas\._libs(\.\w+)*", rf"_unpickle_block|__pyx_unpickle_\w+|{_CLASS}"),
    (r"pandas\.core\.(indexes|dtypes|arrays|internals)(\.\w+)*", rf"_new_Index|new_block|{_CLASS}"),
    (r"pandas(\.core\.(frame|series))?", r"DataFrame|Series|Index|StringDtype|CategoricalDtype"),
    (r"scipy\.sparse(\.\w+)*", rf"(bsr|coo|csc|csr|dia|dok|lil)_(array|matrix)|{_CLASS}"),
    (r"scipy\._lib\.array_api_compat(\.\w+)*", r"asarray"),
    (r"scipy\.interpolate(\.\w+)*", rf"{_CLASS}|interp1d"),
    (r"sklearn(\.(?!datasets|externals|tests|_testing)\w+)*", rf"{_CLASS}|newObj|__pyx_unpickle_\w+"),
    # The supported libraries beside scikit-learn: classes by name, and what tensors are put together with.
    (r"xgboost\.core", r"Booster"),
    (r"xgboost\.sklearn", r"XGBModel|XGB(RF)?(Classifier|Regressor)|XGBRanker"),
    (r"lightgbm\.basic", r"Booster"),
    (r"lightgbm\.sklearn", r"LGBM(Model|Classifier|Regressor|Ranker)"),
    (r"catboost\.core", r"CatBoost(Classifier|Regressor|Ranker)?"),
    (r"torch", rf"{_STORAGES}|{_TENSOR_TYPES}|Size"),
    (r"torch\._utils", r"_rebuild_(tensor_v2|parameter|parameter_with_state)"),
    (r"torch\.nn\.parameter", r"Parameter|Buffer"),
    (rf"torch\.nn\.modules\.({_LAYERS})", r"[A-Z]\w*"),
    (r"torch\.nn\.functional|torch\._C\._nn", r"relu|relu6|gelu|silu|elu|leaky_relu|tanh|sigmoid|softmax|log_softmax"),
    # Default arguments of scikit-learn's own estimators.
    (r"sklearn\.feature_selection(\.\w+)*", r"(f|mutual_info)_(classif|regression)|chi2|r_regression"),
    (r"sklearn\.metrics(\.\w+)*", r"\w+_(score|error|loss|distance|kernel)"),
    (r"sklearn\.linear_model\._sgd_fast|sklearn\._loss(\.\w+)*", r"\w+"),
)
_COMPILED = tuple((re.compile(module), re.compile(name)) for module, name in _RULES)


def is_allowed(module: str, name: str) -> bool:
    """Whether a model may import this. A dotted name is never allowed: it reaches through a good module into any."""
    return any(modules.fullmatch(module) and names.fullmatch(name) for modules, names in _COMPILED)
