-- Fair shares: within a priority tenants are served in turns, by start-time fair queueing (src/transition/fair.rs).
-- A tenant's tickets of one priority stand in a line, and only the first has an entry in the queue. Lines: those behind, by priority, tenant, arrival; score 0.
-- Lengths: lines with tickets, by priority and what they cost together; score 0. Idle: lines without tickets, by when they lost the last one.

fair = part(function(fair)
  -- By priority and tenant: where the last turn that was served ends; its tickets; what they cost together; number of its last entry; when its last ticket left; the
  -- first ticket ('': none), and its start. In place of a tenant all of a priority: its finish is the latest start that was served since it has had tickets.
  local lines = store.hash(TENANTS)
  local FINISH, WAITING, TOTAL, ENTERED, SINCE, FIRST, START = 1, 2, 3, 4, 5, 6, 7
  -- Name -> when it lost its last ticket, false: it has some. Member of the lengths -> whether it is one. Written before the order is read.
  local moves, lengths = {}, {}

  local function name_of(priority, tenant) return format('%010d%016d', priority - MIN_PRIORITY, tenant) end

  local function names_of(entry) return name_of(entry.priority, entry.tenant), name_of(entry.priority, ALL) end

  local function line_of(name) return lines:get(name) or { 0, 0, 0, 0, 0, '', 0 } end

  -- Tickets sort by line, then arrival: digits only.
  local function ticket_of(entry)
    return format(
      '%010d%016d%016d%s%016d%016d%016d%016d', entry.priority - MIN_PRIORITY, entry.tenant, entry.arrival, entry.session, entry.input,
      entry.output, entry.cost, entry.tried
    )
  end

  local function entry_of(ticket, start)
    local function digits(from) return tonumber(ticket:sub(from, from + 15)) end
    return {
      priority = tonumber(ticket:sub(1, 10)) + MIN_PRIORITY, tenant = digits(11), arrival = digits(27), session = ticket:sub(43, 58), input = digits(59),
      output = digits(75), cost = digits(91), tried = digits(107), start = start,
    }
  end

  function fair.fetch(entries)
    local names = {}
    for _, entry in ipairs(entries) do
      names[#names + 1], names[#names + 2] = names_of(entry)
    end
    lines:fetch(names)
  end

  local function write_lengths()
    store.move_all(LENGTHS, lengths)
    lengths = {}
  end

  local function write_idle()
    store.move_all(IDLE, moves)
    moves = {}
  end

  function fair.save()
    write_lengths()
    write_idle()
    lines:save()
  end

  function fair.clear()
    lines:clear()
    for _, key in ipairs({ IDLE, LINES, LENGTHS }) do store.write('UNLINK', key) end
    moves, lengths = {}, {}
    state.idle, state.behind, state.sweep_behind = 0, 0, 0
  end

  function fair.waiting(entry) return line_of(names_of(entry))[WAITING] end

  -- How many tickets of better priorities have no entry in the queue.
  function fair.behind_better_than(priority) return call('ZLEXCOUNT', LINES, '-', format('(%010d', priority - MIN_PRIORITY)) end

  -- What starts are told as: above 0.
  function fair.told(start) return max(start, rules.aging == 0 and state.floor or 0, 1) end

  -- How long a turn is: with aging it is worth as much waiting as a level of priority.
  local function length_of(cost) return rules.aging == 0 and cost or min(floor(cost * rules.aging / TURN), MAX_HANDICAP) end

  -- A line's first ticket comes into the queue. Its turn begins at `start` unless it says when it was (a retry).
  local function step_forward(line, ticket, start, told)
    local entry = entry_of(ticket)
    start = max(rules.aging == 0 and start or entry.arrival, line[FINISH])
    if told > 0 then start = min(start, max(told, rules.aging == 0 and 0 or entry.arrival)) end
    if rules.aging == 0 and (start <= state.floor or state.recovery) then start = 0 end
    entry.start = start
    line[FIRST], line[START] = ticket, start
    queue.put(entry)
  end

  local function stand_behind(ticket)
    local new = store.write('ZADD', LINES, 0, ticket)
    state.behind = state.behind + new
    return new > 0
  end

  local function come_from_behind(ticket)
    local found = store.write('ZREM', LINES, ticket)
    state.behind = state.behind - found
    return found > 0
  end

  local function change_length(name, line, cost, tickets)
    local function member() return format('%s%016d%s', name:sub(1, 10), line[TOTAL], name:sub(11)) end
    lengths[member()] = false
    line[TOTAL] = line[TOTAL] + cost
    if line[WAITING] + tickets > 0 then lengths[member()] = 0 end
  end

  local function come(name, line)
    if line[SINCE] > 0 then
      moves[name], state.idle = false, state.idle - 1
      line[SINCE] = 0
    end
    line[WAITING] = line[WAITING] + 1
    lines:put(name, line)
  end

  local function go(name, line)
    line[WAITING] = line[WAITING] - 1
    if line[WAITING] == 0 then
      line[SINCE] = state.clock
      moves[name], state.idle = state.clock, state.idle + 1
    end
    lines:put(name, line)
  end

  -- A ticket takes its place in its line; false if it was there.
  function fair.enter(entry, told, entered)
    local name, name_of_all = names_of(entry)
    local line, all, ticket = line_of(name), line_of(name_of_all), ticket_of(entry)
    -- Where nobody waits all that was is over.
    local served, first = all[WAITING] > 0 and all[FINISH] or state.highest_finish, line[FIRST]
    if first == '' then
      if line[ENTERED] <= state.busy_since then line[FINISH] = 0 end
      step_forward(line, ticket, served, told)
    elseif ticket < first then
      stand_behind(first)
      queue.cut(entry_of(first, line[START]))
      step_forward(line, ticket, line[START], told)
    elseif ticket == first or not stand_behind(ticket) then
      return false
    end
    change_length(name, line, entry.cost, 1)
    line[ENTERED] = entered
    come(name, line)
    come(name_of_all, all)
    if all[WAITING] == 1 then all[FINISH] = state.recovery and 0 or served end
    return true
  end

  -- A ticket leaves its line; `served`: it is granted. False if it was not there.
  function fair.leave(entry, served)
    local name, name_of_all = names_of(entry)
    local line, all, ticket = lines:get(name), line_of(name_of_all), ticket_of(entry)
    if not line then return false end
    if line[FIRST] == ticket then
      local start = line[START]
      queue.cut(entry_of(ticket, start))
      if served then
        local began = fair.told(start)
        line[FINISH] = max(line[FINISH], min(began + length_of(entry.cost), NEVER - 1))
        state.highest_finish = max(state.highest_finish, line[FINISH])
        all[FINISH] = max(all[FINISH], began)
        start = all[FINISH]
      end
      line[FIRST] = ''
      local after = call('ZRANGEBYLEX', LINES, '[' .. name, '(' .. name .. ':', 'LIMIT', 0, 1)[1]
      if after then
        come_from_behind(after)
        step_forward(line, after, start, 0)
      end
    elseif not come_from_behind(ticket) then
      return false
    end
    change_length(name, line, -entry.cost, -1)
    go(name, line)
    go(name_of_all, all)
    return true
  end

  -- The newest ticket of the line that a ticket that comes should not have made longer, the longest of the worst priority; and whether that is its own line.
  function fair.worst(entry)
    write_lengths()
    local name = names_of(entry)
    local own = line_of(name)[TOTAL] + entry.cost
    local longest = call('ZREVRANGEBYSCORE', LENGTHS, 0, 0, 'LIMIT', 0, 1)[1]
    -- Digits only, so they compare as numbers.
    local own_length = format('%s%016d', name:sub(1, 10), own)
    local other = longest and own_length < longest:sub(1, 26) and longest:sub(1, 10) .. longest:sub(27)
    local of = other or name
    local newest = call('ZREVRANGEBYLEX', LINES, '(' .. of .. ':', '[' .. of, 'LIMIT', 0, 1)[1]
    if not newest then newest = line_of(of)[FIRST] end
    return newest ~= '' and entry_of(newest) or nil, of == name
  end

  -- Tickets behind the first of their line, by rank.
  function fair.look(from, most)
    local entries = {}
    if from >= state.behind or most == 0 then return entries end
    for i, ticket in ipairs(call('ZRANGE', LINES, from, min(from + most, state.behind) - 1)) do entries[i] = entry_of(ticket) end
    return entries
  end

  -- Forgets lines that have had no ticket for as long as anything is remembered, at most 1,000 in one step.
  function fair.forget()
    write_idle()
    local old = call('ZRANGEBYSCORE', IDLE, '-inf', format('%.0f', state.clock - rules.memory), 'LIMIT', 0, MAX_DROPS)
    for _, name in ipairs(old) do
      moves[name] = false
      lines:put(name, false)
    end
    state.idle = state.idle - #old
    step.more = step.more or #old == MAX_DROPS
  end
end)
