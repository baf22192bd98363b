select row_number() over (order by itemid::int)::int as row_id, itemid::int as itemid, label, null::varchar as abbreviation,
    dbsource, if(linksto = '', null, linksto) as linksto, nullif(category, '') as category,
    case when dbsource = 'metavision' then nullif(unit, '') end as unitname,
    case when dbsource <> 'metavision' then null when linksto = 'datetimeevents' then 'Date time'
        when linksto like '%put%' or linksto = 'procedureevents_mv' then if(linksto = 'outputevents', 'Numeric',
            if(linksto = 'inputevents_mv', 'Solution', 'Process'))
        when texts is null or texts = '' then 'Numeric' else 'Text' end as param_type,
    null::int as conceptid
from item order by row_id
