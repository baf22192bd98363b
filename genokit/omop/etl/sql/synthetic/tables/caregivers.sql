select (no + 1)::int as row_id, cgid,
    pick(['RN', 'RN', 'RN', 'RN', 'MD', 'RRT', 'RPH', 'RD', 'PCT', 'MDs', 'Res', 'CoWkr', 'UC', 'CM', 'SW', null], h) as label,
    case when share(h) < 0.7 then pick(['RN', 'Resident/Fellow/PA/NP', 'Attending', 'Respiratory', 'Pharmacist', 'Dietitian',
        'PCT/NA', 'Read Only', 'Social Worker', 'Case Manager'], h >> 16) end as description
from (select *, chance('carer', no) as h from carer) order by row_id
