-- Fair shares (P19): start-time fair queueing among the tenants of one priority. The functions of src/transition/fair.rs, which explains the terms; `name_of` to
-- `entry_of` and `fetch` to `clear` exist only here: they pack and store what is there a tree.
--
-- BEHIND: tickets behind the first of their tenant queue, by priority, tenant and arrival; score 0.
-- BY_COST: tenant queues with tickets, by priority and the cost of all their tickets; score 0.
-- IDLE: tenant queues without tickets; the score is the time when the last one left.

fair = part(function(fair)
  -- By priority and tenant, a tenant queue: the finish tag of its last service; how many tickets; the cost of all of them; the number of its last entry; when its last
  -- ticket left; the first ticket ('': none), and its start tag. In place of a tenant, all tenant queues of a priority: their `FINISH` is the highest start tag that was
  -- served in this busy period.
  local queues = store.hash()
  local FINISH, WAITING, TOTAL, ENTERED, IDLE_SINCE, FIRST, START = 1, 2, 3, 4, 5, 6, 7
  -- Members of IDLE and BY_COST -> their score, false: removed. Written before the sets are read.
  local idle_moves, cost_moves

  local function name_of(priority, tenant) return format('%010d%016d', priority - MIN_PRIORITY, tenant) end

  local function names_of(entry) return name_of(entry.priority, entry.tenant), name_of(entry.priority, ALL) end

  local function queue_of(name) return queues:get(name) or { 0, 0, 0, 0, 0, '', 0 } end

  -- Tickets sort by tenant queue, then arrival: digits only.
  local function ticket_of(entry)
    return format(
      '%010d%016d%016d%s%016d%016d%016d%016d%016d', entry.priority - MIN_PRIORITY, entry.tenant, entry.arrival, entry.session, entry.input,
      entry.output, entry.cost, entry.tried, entry.key
    )
  end

  local function entry_of(ticket, start)
    local function digits(from) return tonumber(ticket:sub(from, from + 15)) end
    return {
      priority = tonumber(ticket:sub(1, 10)) + MIN_PRIORITY, tenant = digits(11), arrival = digits(27), session = ticket:sub(43, 58), input = digits(59),
      output = digits(75), cost = digits(91), tried = digits(107), key = digits(123), start = start,
    }
  end

  function fair.fetch(entries)
    local names = {}
    for _, entry in ipairs(entries) do
      names[#names + 1], names[#names + 2] = names_of(entry)
    end
    queues:fetch(names)
  end

  -- How far a service moves the start tag.
  local function service(cost) return rules.aging == 0 and cost or min(floor(cost * rules.aging / UNIT_COST), MAX_HANDICAP) end

  local function write_costs()
    if next(cost_moves) == nil then return end
    store.move_all(BY_COST, cost_moves)
    cost_moves = {}
  end

  local function write_idle()
    if next(idle_moves) == nil then return end
    store.move_all(IDLE, idle_moves)
    idle_moves = {}
  end

  function fair.save()
    write_costs()
    write_idle()
    queues:save()
  end

  function fair.clear()
    queues:clear()
    for _, key in ipairs({ IDLE, BEHIND, BY_COST }) do store.write('UNLINK', key) end
    idle_moves, cost_moves = {}, {}
    state.idle, state.behind, state.sweep_behind = 0, 0, 0
  end

  -- Some of the tickets behind the first of their tenant queue, by rank.
  function fair.behind(from, most)
    local entries = {}
    if from >= state.behind or most == 0 then return entries end
    for i, ticket in ipairs(call('ZRANGE', BEHIND, from, min(from + most, state.behind) - 1)) do entries[i] = entry_of(ticket) end
    return entries
  end

  -- How many tickets of better priorities have no entry in the queue.
  function fair.behind_better_than(priority) return call('ZLEXCOUNT', BEHIND, '-', format('(%010d', priority - MIN_PRIORITY)) end

  -- How many tickets a tenant queue has.
  function fair.waiting(entry) return queue_of(names_of(entry))[WAITING] end

  -- Whether a ticket waits.
  function fair.contains(entry)
    local ticket = ticket_of(entry)
    return queue_of(names_of(entry))[FIRST] == ticket or call('ZSCORE', BEHIND, ticket) and true or false
  end

  -- A start tag as instances learn it: above 0, and not below the tag floor.
  function fair.reported_start(start) return max(start, rules.aging == 0 and state.tag_floor or 0, 1) end

  -- Inserts a tenant queue's first ticket into the queue. `former_start`: the start tag that a retry brings back; else 0, and its service begins at `start`.
  local function make_first(of, ticket, start, former_start)
    local entry = entry_of(ticket)
    start = max(rules.aging == 0 and start or entry.arrival, of[FINISH])
    if former_start > 0 then start = min(start, max(former_start, rules.aging == 0 and 0 or entry.arrival)) end
    if rules.aging == 0 and (start <= state.tag_floor or state.recovery) then start = 0 end
    entry.start = start
    of[FIRST], of[START] = ticket, start
    queue.insert(entry)
  end

  local function add_behind(ticket)
    local new = store.write('ZADD', BEHIND, 0, ticket)
    state.behind = state.behind + new
    return new > 0
  end

  local function remove_behind(ticket)
    local found = store.write('ZREM', BEHIND, ticket)
    state.behind = state.behind - found
    return found > 0
  end

  -- The cost and the number of a tenant queue's tickets change by so much.
  local function change_cost(name, of, cost, tickets)
    local function member() return format('%s%016d%s', name:sub(1, 10), of[TOTAL], name:sub(11)) end
    cost_moves[member()] = false
    of[TOTAL] = of[TOTAL] + cost
    if of[WAITING] + tickets > 0 then cost_moves[member()] = 0 end
  end

  -- A ticket has entered.
  local function count_entered(name, of)
    if of[IDLE_SINCE] > 0 then
      idle_moves[name], state.idle = false, state.idle - 1
      of[IDLE_SINCE] = 0
    end
    of[WAITING] = of[WAITING] + 1
    queues:put(name, of)
  end

  -- A ticket has left.
  local function count_left(name, of)
    of[WAITING] = of[WAITING] - 1
    if of[WAITING] == 0 then
      of[IDLE_SINCE] = state.clock
      idle_moves[name], state.idle = state.clock, state.idle + 1
    end
    queues:put(name, of)
  end

  -- The newest ticket of a tenant queue, given by its name.
  function fair.newest(name)
    local newest = call('ZREVRANGEBYLEX', BEHIND, '(' .. name .. ':', '[' .. name, 'LIMIT', 0, 1)[1]
    if not newest then newest = queue_of(name)[FIRST] end
    return newest ~= '' and entry_of(newest) or nil
  end

  -- The tenant queue that a ticket which joins a full queue takes room from: the longest of the worst priority, its own with it included. Its name, and whether it is
  -- its own.
  function fair.longest(entry)
    write_costs()
    local name = names_of(entry)
    local own = queue_of(name)[TOTAL] + entry.cost
    local longest = call('ZREVRANGEBYSCORE', BY_COST, 0, 0, 'LIMIT', 0, 1)[1]
    -- Digits only, so they compare as numbers.
    local own_cost = format('%s%016d', name:sub(1, 10), own)
    local other = longest and own_cost < longest:sub(1, 26) and longest:sub(1, 10) .. longest:sub(27)
    return other or name, not other or other == name
  end

  -- A ticket enters its tenant queue; false if it was there.
  function fair.enter(entry, former_start, entered)
    local name, name_of_all = names_of(entry)
    local own, all, ticket = queue_of(name), queue_of(name_of_all), ticket_of(entry)
    -- If no ticket of the priority waits, all former services are over.
    local served, first = all[WAITING] > 0 and all[FINISH] or state.highest_finish, own[FIRST]
    if first == '' then
      if own[ENTERED] <= state.busy_since then own[FINISH] = 0 end
      make_first(own, ticket, served, former_start)
    elseif ticket < first then
      add_behind(first)
      queue.remove(entry_of(first, own[START]))
      make_first(own, ticket, own[START], former_start)
    elseif ticket == first or not add_behind(ticket) then
      return false
    end
    change_cost(name, own, entry.cost, 1)
    own[ENTERED] = entered
    count_entered(name, own)
    count_entered(name_of_all, all)
    if all[WAITING] == 1 then all[FINISH] = state.recovery and 0 or served end
    return true
  end

  -- A ticket leaves its tenant queue; `granted`: its service begins. False if it was not there.
  function fair.leave(entry, granted)
    local name, name_of_all = names_of(entry)
    local own, all, ticket = queues:get(name), queue_of(name_of_all), ticket_of(entry)
    if not own then return false end
    if own[FIRST] == ticket then
      local start = own[START]
      queue.remove(entry_of(ticket, start))
      if granted then
        local tag = fair.reported_start(start)
        own[FINISH] = max(own[FINISH], min(tag + service(entry.cost), NEVER - 1))
        state.highest_finish = max(state.highest_finish, own[FINISH])
        all[FINISH] = max(all[FINISH], tag)
        start = all[FINISH]
      end
      own[FIRST] = ''
      local following = call('ZRANGEBYLEX', BEHIND, '[' .. name, '(' .. name .. ':', 'LIMIT', 0, 1)[1]
      if following then
        remove_behind(following)
        make_first(own, following, start, 0)
      end
    elseif not remove_behind(ticket) then
      return false
    end
    change_cost(name, own, -entry.cost, -1)
    count_left(name, own)
    count_left(name_of_all, all)
    return true
  end

  -- Forgets tenant queues that have had no ticket for the time of the charge log, at most MAX_DROPS.
  function fair.forget()
    write_idle()
    local old = call('ZRANGEBYSCORE', IDLE, '-inf', format('%.0f', state.clock - rules.memory), 'LIMIT', 0, MAX_DROPS)
    for _, name in ipairs(old) do
      idle_moves[name] = false
      queues:put(name, false)
    end
    state.idle = state.idle - #old
    step.more = step.more or #old == MAX_DROPS
  end

  return function()
    queues:begin(TENANTS)
    idle_moves, cost_moves = {}, {}
  end
end)
