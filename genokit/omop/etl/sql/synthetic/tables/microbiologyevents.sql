select row_id, subject_id, case when (chance('outside', row_id // 5) % 100) >= 8 then hadm_id end as hadm_id,
    midnight(minutes(admittime, at_min)) as chartdate, case when (c >> 8) % 20 > 0 then minutes(admittime, at_min) end as charttime,
    spec.itemid as spec_itemid, spec.label as spec_type_desc, org.itemid as org_itemid, org.label as org_name,
    case when org.itemid is not null then 1 end::smallint as isolate_num, ab.itemid as ab_itemid, ab.label as ab_name,
    case when ab.itemid is not null then sign || dilution::varchar end as dilution_text,
    case when ab.itemid is not null then if(sign = '', '=', sign) end as dilution_comparison,
    case when ab.itemid is not null then dilution::double end as dilution_value,
    case when ab.itemid is not null then if(sign = '=>', 'R', if(dilution > 4, 'I', 'S')) end as interpretation
from (
    select each.*, chance('culture', row_id // 5) as c, (greatest(stay_min, 1) * (i // 5 * 5) // n)::bigint as at_min,
        pick(['<=', '<=', '<=', '=>', ''], a) as sign, pick([0.25, 0.5, 1, 2, 4, 8, 32], a >> 8) as dilution
    from each
)
join place spec on spec.list = 'SPECIMEN' and spec.place = (c >> 50)::int % 1024
left join place org on org.list = 'ORGANISM' and org.place = (c >> 40)::int % 1024 and (c >> 20) % 100 < 60
left join place ab on ab.list = 'ANTIBACTERIUM' and ab.place = (b >> 50)::int % 1024 and org.itemid is not null and a % 10 > 1
