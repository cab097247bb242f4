//! What nodes see of gateways, as a table.

use maud::{Markup, html};

use super::when;
use crate::board::Place;
use crate::view::{Cell, Column, Level, MOST_ROWS, Matrix, Row, Sight, Standing};

/// On the first page: what is wrong, and as much of the rest as there is room for.
pub(super) fn of_all(matrix: &Matrix) -> Markup {
    html! {
        section.card aria-labelledby="matrix-title" {
            h2 #matrix-title { "What nodes see of the gateways" }
            (summary(matrix))
            (table(matrix))
            @if matrix.more_columns > 0 {
                p.muted { (matrix.more_columns) " more gateways: they stand on the pages of their EgressGateways." }
            }
            @if matrix.nodes > MOST_ROWS {
                p.muted { (matrix.nodes - matrix.rows.len()) " more nodes: they stand on the pages of the EgressGateways." }
            }
            (legend())
        }
    }
}

/// On the page of one EgressGateway: every node, by pages.
pub(super) fn of_one(matrix: &Matrix, gateway: &str) -> Markup {
    let to = |page: usize| format!("./{}", super::query(&Place { gateway: Some(gateway.to_owned()), page }));
    html! {
        section.card aria-labelledby="matrix-title" {
            h2 #matrix-title { "What nodes see of its gateways" }
            (summary(matrix))
            (table(matrix))
            @if matrix.pages > 1 {
                nav.pages aria-label="Pages of nodes" {
                    @if matrix.page > 1 { a rel="prev" href=(to(matrix.page - 1)) { "Before" } }
                    span { "Page " (matrix.page) " of " (matrix.pages) }
                    @if matrix.page < matrix.pages { a rel="next" href=(to(matrix.page + 1)) { "Next" } }
                }
            }
            (legend())
        }
    }
}

fn summary(matrix: &Matrix) -> Markup {
    html! {
        p {
            @match (matrix.nodes, matrix.troubled) {
                (0, _) => { "There is no node." }
                (_, 0) => { "No node sees anything wrong." }
                (nodes, 1) => { "1 of " (nodes) " nodes sees something wrong or does not count; it comes first." }
                (nodes, troubled) => { (troubled) " of " (nodes) " nodes see something wrong or do not count; they come first." }
            }
        }
    }
}

fn table(matrix: &Matrix) -> Markup {
    html! {
        @if !matrix.rows.is_empty() && !matrix.columns.is_empty() {
            // What scrolls must be reached by the keyboard.
            div.scroll role="region" tabindex="0" aria-labelledby="matrix-title" {
                table.matrix {
                    thead { tr {
                        th scope="col" { "Node" }
                        @for column in &matrix.columns { (head(column)) }
                    } }
                    tbody { @for row in &matrix.rows { (line(row, &matrix.columns)) } }
                }
            }
        }
    }
}

fn head(column: &Column) -> Markup {
    // Names of gateways begin with that of their EgressGateway; what differs is what a narrow column has room for.
    let short = column.name.strip_prefix(&column.egress_gateway).unwrap_or(&column.name);
    html! {
        th scope="col" {
            span.column-owner { (column.egress_gateway) }
            span.column-name { (short.trim_start_matches('-')) }
            span.column-role { (format!("{:?}", column.role)) }
        }
    }
}

fn line(row: &Row, columns: &[Column]) -> Markup {
    html! {
        tr.troubled[row.is_troubled()] {
            th scope="row" {
                (row.node)
                @if let Some(words) = row.standing.words() { span.note { (words) } }
                @for note in &row.notes { span.note { (note) } }
            }
            @for (cell, column) in row.cells.iter().zip(columns) { (field(cell, column, row.standing)) }
        }
    }
}

fn field(cell: &Cell, column: &Column, standing: Standing) -> Markup {
    let (class, sign, short, words) = match cell.sight {
        Sight::Works => ("works", "✓", "", "works"),
        Sight::Untried => ("untried", "…", "new", "answers in the VPC, and nobody has got through it yet"),
        Sight::Fails(level) => ("fails", "✕", level.short(), level.words()),
        Sight::Unknown => ("unknown", "–", "", "the node says nothing of it"),
    };
    let old = standing != Standing::Reports;
    let class = format!("sight {class}{}", if old { " old" } else { "" });
    html! {
        td class=(class) title=[cell.message.as_deref()] {
            span aria-hidden="true" { (sign) @if !short.is_empty() { " " (short) } @if cell.in_use { span.used { "●" } } }
            span.hidden {
                (column.name) " " (words)
                @if cell.in_use { ", in use" }
                @if old { ", may be old" }
                @if let Some(message) = &cell.message { ": " (message) }
                @if let (Sight::Fails(_), Some(since)) = (cell.sight, cell.since) { ", since " (when(since)) }
            }
        }
    }
}

fn legend() -> Markup {
    html! {
        details #legend {
            summary { "What the signs mean" }
            dl.legend {
                div { dt { "✓" } dd { "the node gets through it to the outside" } }
                div { dt { "●" } dd { "the node sends through it now" } }
                div { dt { "… new" } dd { "it answers in the VPC, and nobody has got through it yet" } }
                div { dt { "–" } dd { "the node says nothing of it" } }
                @for level in Level::ALL { div { dt { "✕ " (level.short()) } dd { "it " (level.words()) } } }
            }
        }
    }
}
