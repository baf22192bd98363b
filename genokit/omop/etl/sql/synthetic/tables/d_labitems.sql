select row_number() over (order by itemid::int)::int as row_id, itemid::int as itemid, label, fluid, category,
    nullif(loinc, '') as loinc_code
from lab order by row_id
