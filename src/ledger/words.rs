/// An enum of words: the same in a column, in JSON, in the OpenAPI document and in a text.
macro_rules! words {
    ($(#[$doc:meta])* $visible:vis enum $name:ident { $($words:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(strum::Display, sea_orm::EnumIter, sea_orm::DeriveActiveEnum)]
        #[derive(serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        #[strum(serialize_all = "snake_case")]
        #[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
        #[serde(rename_all = "snake_case")]
        $visible enum $name { $($words)* }
    };
}
