select row_number() over (order by code)::int as row_id, code as icd9_code, short as short_title, long as long_title
from code where kind = 'procedure' order by row_id
